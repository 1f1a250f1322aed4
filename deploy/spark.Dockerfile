# The image of driver and executors for deploy/spark-job.yaml. Not built by our tests. From the repository's root:
#   docker build -f deploy/spark.Dockerfile --build-arg SPARK_IMAGE=apache/spark:VERSION -t hemix-spark .
# SPARK_IMAGE: an image of the release that PYSPARK names. It gives the start script of pods, which pyspark does not have.
ARG SPARK_IMAGE
FROM ${SPARK_IMAGE} AS spark

FROM python:3.11-slim-bookworm
ARG PYSPARK=4.3.0
RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless tini \
 && rm -rf /var/lib/apt/lists/*
COPY --from=spark /opt/entrypoint.sh /opt/decom.sh /opt/
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY hemix ./hemix
# no torch: neither driver nor executors import it when they prepare
RUN pip install --no-cache-dir -c constraints.txt "pyspark==${PYSPARK}" numpy pyarrow pydantic pyyaml xxhash fsspec tzdata scipy typer rich \
 && pip install --no-cache-dir --no-deps . \
 && useradd --uid 10001 --create-home hemix
ENV SPARK_HOME=/usr/local/lib/python3.11/site-packages/pyspark \
    JAVA_HOME=/usr/lib/jvm/java-17-openjdk-amd64 \
    PYSPARK_PYTHON=/usr/local/bin/python3.11 OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
USER 10001
WORKDIR /tmp
ENTRYPOINT ["/opt/entrypoint.sh"]
