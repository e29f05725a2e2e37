# The command line with the studio: docker build -t zeuxis . && docker run --rm -v "$PWD:/work" zeuxis runs
FROM python:3.12-slim
WORKDIR /package
COPY . .
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && pip install --no-cache-dir -c constraints.txt '.[studio,onnx,judge]'
WORKDIR /work
ENTRYPOINT ["zeuxis"]
CMD ["--help"]
