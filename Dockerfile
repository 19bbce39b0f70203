# syntax=docker/dockerfile:1
# One image for web, workers and migrations, selected by the command.
#   docker build .                                                                          # CUDA
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .             # CPU only
# What is installed is named with its hashes in requirements/ (`make lock`). Another index has other
# files of torch: their version is the locked one, their hashes are those that the index names.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# torch first: it is the large layer, and changes less often than the rest
COPY requirements/torch.txt /srv/requirements/
WORKDIR /srv
RUN if [ -z "${TORCH_INDEX}" ]; then \
      pip install --no-deps --require-hashes -r requirements/torch.txt; \
    else \
      pip install --index-url "${TORCH_INDEX}" "$(grep -o '^torch==[^ ]*' requirements/torch.txt)"; \
    fi
COPY requirements/image.txt requirements/build.txt /srv/requirements/
RUN pip install --no-deps --require-hashes -r requirements/image.txt \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --no-deps --require-hashes -r requirements/build.txt
WORKDIR /srv/brushwork
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
COPY worker ./worker
COPY migrations ./migrations
COPY static ./static
COPY templates ./templates
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /srv/wheel . \
    && pip install --no-deps /srv/wheel/*.whl \
    && pip check

FROM python:${PYTHON}-slim
RUN useradd --create-home --uid 10001 brushwork \
    && install -d -o brushwork -g brushwork -m 0700 /data
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    BRUSHWORK_DATA_DIR=/data \
    BRUSHWORK_HOST=0.0.0.0 \
    BRUSHWORK_OPEN_BROWSER=false
WORKDIR /home/brushwork
USER brushwork
VOLUME /data
EXPOSE 8188
STOPSIGNAL SIGTERM
# `docker run` with BRUSHWORK_PASSWORD runs the whole stack in one container
ENTRYPOINT ["brushwork"]
CMD ["serve"]
