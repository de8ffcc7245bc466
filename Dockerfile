# The app on two CPU cores, without a connection to any other host: docker build --tag dermadeit . && docker run
# --publish 7860:7860 dermadeit. A Space with `sdk: docker` builds it too (docs/deploy.md).
FROM python:3.12.12-slim-bookworm

RUN useradd --create-home --uid 1000 reader
WORKDIR /home/reader/app

# Python's packages first: they change less often than the app. The second index has torch for CPUs alone, a tenth of
# the size; where it lacks a version, pip takes the other build.
COPY requirements.txt ./
RUN sed '/^# Training$/,$d' requirements.txt > app-requirements.txt \
    && pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
        --requirement app-requirements.txt \
    && rm app-requirements.txt

COPY app.py README.md LICENSE ./
COPY dermadeit ./dermadeit
COPY assets ./assets

USER 1000
ENV GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    HF_HUB_OFFLINE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/healthz', timeout=4)"]
CMD ["python", "app.py"]
