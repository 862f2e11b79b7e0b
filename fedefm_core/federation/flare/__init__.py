# SPDX-License-Identifier: Apache-2.0
"""A federation over machines, on NVIDIA FLARE: needs the extra 'federated'.

settings.py        the owner's project
site_settings.py   a site's own settings; neither can say what the other does
desk.py            what a site does: its silo, its weights, and what came in this round
site.py            the desk as methods that FLARE lets the server and neighbours call
carrier.py         a Carrier that has the sites do it
rounds.py          the run, with that carrier
conductor.py       the run as what FLARE's server starts for a job
job.py             the job that names these to FLARE; it holds settings and no code
kits.py            start-up kits with certificates
console.py         submit, status, abort, fetch, follow
local.py           server and sites as processes of this machine
"""
