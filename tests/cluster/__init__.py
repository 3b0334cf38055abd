"""A real Kubernetes cluster on this machine, for the tests: `python3 -m tests.cluster up`.

Standard library only, since it runs before anything is installed. What each module answers:

| module | question |
|---|---|
| `__main__` | what may be asked for on the command line? |
| `cluster` | in which order does a cluster come up, go down, get images? |
| `topology` | what does kind have to make: which nodes, mounts, ports, flags? |
| `addons`, `gpus`, `kwok`, `s3`, `volumes` | what do the tests need inside the cluster? |
| `engine`, `footprint`, `settings`, `neighbours`, `leftovers` | how does an engine of our own leave nothing behind? |
| `binaries`, `toolchain`, `packages` | where do programs come from where nothing can be pulled? |
| `nodeimage`, `product`, `loading`, `oci` | which images are there, and how do they get to a node? |
| `stores` | how does a node start with 5 GB of images at no cost? |
| `state`, `steps`, `processes`, `versions` | where is everything kept, shown, run, pinned? |

Two ways to the same cluster. *Published*: kind's node image and the user's Docker engine. *Built*: where
nothing can be pulled and `docker run --privileged` is refused, everything is built from source modules and
runs on an engine of our own. Tests use `tests.cluster.state.read(name)` and the functions in `gpus`, `kwok`,
`s3` and `volumes`."""
