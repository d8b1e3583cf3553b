"""`aejax serve`: encode, decode, denoise, sample and latents over HTTP, and a page for people.

    limits.py     limits of requests, and the exception for a refused one
    batching.py   one worker thread; requests for pictures of one shape are batched
    telemetry.py  counts and times in the text format of Prometheus
    forms.py      reads the file of a multipart form
    requests.py   reads and checks bodies, pictures and parameters of requests
    work.py       the models: denoiser, codec, generator, encoder
    app.py        the routes
    openapi.py    their description, for programs and for people
    server.py     uvicorn, with time limits for slow clients
    cli.py        the command line

Starlette and uvicorn do the HTTP: `pip install aejax[serve]`.
"""
