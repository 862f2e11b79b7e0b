# SPDX-License-Identifier: Apache-2.0
"""segmentation_node: X-ray images in; mask, tips, centrelines and a state to go by out.

The executor's thread receives: the image callback only leaves the newest message in a mailbox.
A worker takes it from there, so a slow frame never makes the next one late: it makes it newer.
See interface.py for the topics and segmentation_parameters.py for the parameters.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from typing import Any

from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.service import Service
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from fedefm_core.errors import FrameError, OutputError, RuntimeUnavailableError
from fedefm_core.frames import Frame, to_grey8
from fedefm_core.perception import Segmenter, draw_overlay, open_runtime, resolve_model
from fedefm_core.perception.runtimes.tensorrt import ensure_engine
from fedefm_ros import interface, messages, status
from fedefm_ros.cv_bridge_fallback import find_cv_bridge
from fedefm_ros.frame_pipeline import FramePipeline
from fedefm_ros.health import SUPERSEDED, Health, Verdict
from fedefm_ros.mailbox import Mailbox
from fedefm_ros.outputs import Outputs
from fedefm_ros.parameters import Parameters, ParameterSpec, Value
from fedefm_ros.qos import image_qos, output_qos, overridable, subscription_events
from fedefm_ros.runner import run_node
from fedefm_ros.segmentation_parameters import (
    SPECS,
    perception_settings,
    runtime_threads,
)

HEARTBEAT_S = 0.025  # `state` is promised at 20 Hz; twice that leaves room for a busy machine
LOG_PERIOD_S = 5.0  # between two log lines about bad frames

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class SegmentationNode(LifecycleNode):
    """See the module's docstring. Everything that is None here is made by configure."""

    def __init__(self, stopping: threading.Event | None = None) -> None:
        """stopping: set by the process when it is to end; a build of an engine then ends too."""
        super().__init__(interface.NODE_NAME)
        self._stopping = stopping or threading.Event()
        self._settings = Parameters(self, SPECS, fixed=self._fixed, on_set=self._on_parameter)
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)  # runs on when simulated time stops
        self._configured = self._active = False
        self._values: dict[str, Any] = {}
        self._pipeline: FramePipeline | None = None
        self._health: Health | None = None
        self._about: dict[str, object] = {}
        self._outputs: Outputs | None = None
        self._state_publisher: Publisher | None = None
        self._diagnostics_publisher: Publisher | None = None
        self._image_subscription: Subscription | None = None
        self._camera_info_subscription: Subscription | None = None
        self._reset_service: Service | None = None
        self._heartbeat: Timer | None = None
        self._diagnostics_timer: Timer | None = None
        self._camera_info: CameraInfo | None = None
        self._state_published_at = 0.0
        self._lost_told = 0
        self._mailbox: Mailbox[Image | CompressedImage] | None = None
        self._worker: threading.Thread | None = None
        self._autostart_timer = self.create_timer(0.0, self._autostart, clock=self._steady)

    # --- transitions --------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model, warm it up, create all topics; from here on `state` is published.

        SUCCESS: inactive; images are received, so that discovery is over before activation, and
        ignored. FAILURE: back to unconfigured, with the reason in the log: a parameter was given
        a wrong value, the model is missing or damaged, no runtime can run it, or a QoS override
        is not understood. Nothing is left behind, and configure may be tried again.
        """
        try:
            self._values = self._settings.values()
            self._pipeline = self._load_pipeline()
            self._create_ends()
        except Exception as error:
            self._release()
            self.get_logger().error(f"Cannot configure: {error or repr(error)}")
            return FAILURE
        self._configured = True
        about = ", ".join(f"{key} {value}" for key, value in self._about.items())
        self.get_logger().info(f"Configured: {about}")
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start to process frames, with no track and no fault from before.

        SUCCESS: active. There is no FAILURE; an exception leads to on_error.
        """
        self._pipeline.reset()
        self._health.activated()
        result = super().on_activate(state)
        self._mailbox = Mailbox()
        self._worker = threading.Thread(target=self._work, args=(self._mailbox,), name="worker")
        self._active = True
        self._worker.start()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Finish the frame at hand, then process no more; `state` says STALE.

        SUCCESS: inactive. There is no FAILURE; an exception leads to on_error.
        """
        self._stop_worker()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the model and of all topics; parameters may change again.

        SUCCESS: unconfigured. There is no FAILURE; an exception leads to on_error.
        """
        self._release()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As cleanup, from any state, for good.

        SUCCESS: finalized; the process lives until SIGINT or SIGTERM. There is no FAILURE; an
        exception leads to on_error.
        """
        self._release()
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything after a transition raised an exception.

        SUCCESS: unconfigured, and configure may be tried again. An exception here: finalized.
        """
        self.get_logger().error(f"A transition from {state.label} failed: starting over")
        self._release()
        return SUCCESS

    def close(self) -> None:
        """Stop the worker before the process ends; in any state."""
        self._release()

    def _autostart(self) -> None:
        self.destroy_timer(self._autostart_timer)
        if self.get_parameter("autostart").value and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    # --- what configure makes -----------------------------------------------------------------

    def _load_pipeline(self) -> FramePipeline:
        threads = runtime_threads(self._values["threads"])
        model = self._values["model"] or None
        if self._values["build_engine"] and self._values["runtime"] in ("auto", "tensorrt"):
            self._build_engine(model)
        runtime = open_runtime(model, self._values["runtime"], threads)
        for warning in runtime.warnings:
            self.get_logger().warning(f"Not used: {warning}")
        segmenter = Segmenter(runtime, perception_settings(self._values))
        segmenter.warm_up()
        self._about = status.about(runtime, threads)
        return FramePipeline(
            segmenter, self._values["max_image_size"], find_cv_bridge(self.get_logger().warning)
        )

    def _build_engine(self, model: str | None) -> None:
        """Build the model's engine where there is none, telling how far it is.

        What stops it is told; open_runtime then finds no engine, and says what to do.
        """
        name = self.get_fully_qualified_name()
        publisher = self._create_status_publisher(interface.DIAGNOSTICS)

        def tell(progress: object) -> None:
            self.get_logger().info(f"Building the engine: {progress}", throttle_duration_sec=5.0)
            message = status.building_message(self._now(), str(progress), name, model or "")
            publisher.publish(message)

        try:
            ensure_engine(resolve_model(model), tell, self._stopping.is_set)
        except (OutputError, RuntimeUnavailableError) as error:
            self.get_logger().warning(f"No engine was built: {error}")
        finally:
            self.destroy_publisher(publisher)

    def _create_ends(self) -> None:
        self._health = Health()
        self._lost_told = 0
        self._outputs = Outputs(self)
        self._state_publisher = self._create_status_publisher(interface.STATE)
        self._diagnostics_publisher = self._create_status_publisher(interface.DIAGNOSTICS)
        self._camera_info_subscription = self.create_subscription(
            CameraInfo,
            interface.CAMERA_INFO,
            self._on_camera_info,
            image_qos(),
            qos_overriding_options=overridable(),
        )
        topic, message_type = interface.IMAGES[self._values["image_transport"]]
        self._image_subscription = self.create_subscription(
            message_type,
            topic,
            self._on_image,
            image_qos(),
            event_callbacks=subscription_events(message_lost=self._on_message_lost),
            qos_overriding_options=overridable(),
        )
        self._reset_service = self.create_service(
            interface.SERVICES[interface.RESET_TRACKING],
            interface.RESET_TRACKING,
            self._on_reset_tracking,
        )
        self._heartbeat = self.create_timer(HEARTBEAT_S, self._on_heartbeat, clock=self._steady)
        self._diagnostics_timer = self.create_timer(
            self._values["diagnostics_period"], self._publish_diagnostics, clock=self._steady
        )

    def _create_status_publisher(self, name: str) -> Any:
        return self.create_publisher(
            interface.STATUS_OUTPUTS[name],
            name,
            output_qos(),
            qos_overriding_options=overridable(),
        )

    def _release(self) -> None:
        """Undo configure, as far as it came."""
        self._configured = False
        self._stop_worker()
        for timer in (self._heartbeat, self._diagnostics_timer):
            self.destroy_timer(timer)
        for subscription in (self._image_subscription, self._camera_info_subscription):
            self.destroy_subscription(subscription)
        self.destroy_service(self._reset_service)
        for publisher in (self._state_publisher, self._diagnostics_publisher):
            self.destroy_publisher(publisher)
        if self._outputs is not None:
            self._outputs.destroy()
        self._heartbeat = self._diagnostics_timer = self._reset_service = None
        self._image_subscription = self._camera_info_subscription = None
        self._state_publisher = self._diagnostics_publisher = self._outputs = None
        self._pipeline = self._health = self._camera_info = None

    # --- parameters ---------------------------------------------------------------------------

    def _fixed(self, spec: ParameterSpec) -> str:
        if spec.live or not self._configured:
            return ""
        return "can change only while the node is unconfigured: deactivate and clean up first"

    def _on_parameter(self, name: str, value: Value) -> None:
        self._values[name] = value

    # --- the executor's thread ----------------------------------------------------------------

    def _on_image(self, message: Image | CompressedImage) -> None:
        if not self._active:
            return
        self._health.received(time.monotonic())
        if self._mailbox.put(message):
            self._health.dropped(SUPERSEDED)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._camera_info = message

    def _on_message_lost(self, event: Any) -> None:
        self._health.lost_by_middleware(event.total_count_change)

    def _on_reset_tracking(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._pipeline.reset()
        self._health.tracking_was_reset()
        response.success = True
        response.message = "Tracks are forgotten; the next frame starts anew."
        self._publish_state(self._now())
        return response

    def _on_heartbeat(self) -> None:
        if time.monotonic() - self._state_published_at >= HEARTBEAT_S / 2:
            self._publish_state(self._now())

    # --- the worker's thread ------------------------------------------------------------------

    def _work(self, mailbox: Mailbox[Image | CompressedImage]) -> None:
        while (message := mailbox.take()) is not None:
            try:
                self._process(message)
            except FrameError as error:
                self._health.dropped(error.reason, str(error))
                self._warn(f"Frame not processed ({error.reason}): {error}")
            except Exception as error:
                self._on_fault(error)

    def _stop_worker(self) -> None:
        self._active = False
        if self._worker is not None:
            self._mailbox.close()
            self._worker.join()
        self._worker = self._mailbox = None

    def _process(self, message: Image | CompressedImage) -> None:
        started = time.monotonic()
        stamp = message.header.stamp
        frame, perception = self._pipeline.process(
            message, self._clock_ns(), self._values["max_age"]
        )
        plane = self._image_plane(message.header, frame)
        self._outputs.publish_tips(perception, plane, stamp)
        processing_ms = (time.monotonic() - started) * 1e3
        latency_ms = (self._clock_ns() - frame.stamp_ns) / 1e6
        phases = self._pipeline.phases()
        self._health.processed(perception, phases, latency_ms, time.monotonic())
        self._publish_state(stamp)
        self._outputs.publish_mask(perception.label_map, message.header)
        self._outputs.publish_centerlines(perception, plane, stamp)
        self._outputs.publish_timing(processing_ms, latency_ms)
        if self._values["overlay"] and self._outputs.wanted(interface.OVERLAY):
            overlay = draw_overlay(to_grey8(frame), perception)
            self._outputs.publish_overlay(overlay, message.header)

    def _image_plane(self, header: Header, frame: Frame) -> messages.ImagePlane | None:
        """The plane of the metric outputs; None when the spacing is not known."""
        if self._camera_info is None:
            return None
        height, width = frame.pixels.shape
        spacing_m = messages.spacing_from_camera_info(
            self._camera_info,
            (width, height),
            self._values["source_detector_distance"],
            self._values["magnification"],
        )
        if spacing_m is None:
            return None
        default = f"{header.frame_id}_image_plane" if header.frame_id else "image_plane"
        return messages.ImagePlane(self._values["image_plane_frame"] or default, spacing_m)

    def _on_fault(self, error: Exception) -> None:
        self.get_logger().error(
            f"Processing failed: {error!r}", throttle_duration_sec=LOG_PERIOD_S
        )
        self.get_logger().debug(traceback.format_exc())
        self._health.failed(repr(error))
        self._publish_state(self._now())

    # --- both threads -------------------------------------------------------------------------

    def _publish_state(self, stamp: Time) -> None:
        """Publish `state`; stamp: of the frame that it is about, or now for a heartbeat."""
        verdict = self._verdict()
        self._state_publisher.publish(
            status.state_message(verdict, stamp, self._health.last_result(), self._about)
        )
        self._state_published_at = time.monotonic()

    def _publish_diagnostics(self) -> None:
        """Publish on `/diagnostics`."""
        statistics = self._health.statistics(time.monotonic())
        message = status.diagnostics_message(
            self._verdict(),
            self._now(),
            statistics,
            self._lost_told,
            self._about,
            self.get_fully_qualified_name(),
        )
        self._lost_told = statistics.lost_by_middleware
        self._diagnostics_publisher.publish(message)

    def _verdict(self) -> Verdict:
        return self._health.verdict(time.monotonic(), self._values["image_timeout"], self._active)

    def _clock_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _now(self) -> Time:
        return self.get_clock().now().to_msg()

    def _warn(self, text: str) -> None:
        self.get_logger().warning(text, throttle_duration_sec=LOG_PERIOD_S)


def main() -> None:
    """Entry point of the process; takes --ros-args."""
    sys.exit(run_node(SegmentationNode))


if __name__ == "__main__":
    main()
