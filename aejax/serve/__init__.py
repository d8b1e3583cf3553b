"""`aejax serve`: encode, decode, denoise, sample and latents over HTTP, and a page for people.

    limits.py     how much a request may ask for, and how one is refused
    batching.py   one worker; requests of one shape together
    telemetry.py  counts and times, as Prometheus reads them
    forms.py      the file in a multipart form
    requests.py   bodies, pictures and parameters of requests, checked before any work
    work.py       what is done, by the public functions of the rooms
    app.py        routes; openapi.py describes them
    cli.py        the verb

Starlette and uvicorn do the HTTP: `pip install aejax[serve]`.
"""
