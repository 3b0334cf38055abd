# What only tests need inside the cluster: static programs, one image.
FROM scratch
COPY kwok versitygw metrics-server /
ENTRYPOINT ["/kwok"]
