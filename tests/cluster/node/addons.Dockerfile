# What the tests need inside the cluster: static programs, one image.
FROM scratch
COPY pause deviceplugin provisioner kwok versitygw /
ENTRYPOINT ["/pause"]
