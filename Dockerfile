# syntax=docker/dockerfile:1
# One image for web, workers and migrations, selected by the command.
#   docker build .                                                                          # CUDA
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu .             # CPU only
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu128
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# torch first: it is the large layer, and changes less often than the rest
RUN pip install --index-url ${TORCH_INDEX} torch
WORKDIR /srv/brushwork
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
COPY worker ./worker
COPY migrations ./migrations
COPY static ./static
COPY templates ./templates
RUN pip install '.[eightbit]'

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
