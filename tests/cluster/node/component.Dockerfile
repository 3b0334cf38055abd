# The node image as an ordinary container: systemd's stop signal would leave a component to be killed.
ARG NODE
FROM ${NODE}
STOPSIGNAL SIGTERM
ENTRYPOINT []
