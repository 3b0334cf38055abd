# What every cluster of ours needs inside: static programs, one image.
FROM scratch
COPY pause deviceplugin provisioner /
ENTRYPOINT ["/pause"]
