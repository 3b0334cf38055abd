"""An operator beside a real cluster, and everything that can go wrong between the two.

| module | question |
|---|---|
| `cluster` | which cluster, and who else acts there? |
| `nodes` | how do pods run, and prepare Jobs report, without an image? |
| `process` | how does an operator run as a process that a test can kill? |
| `proxy` | what does an API server do on its worst day? |
| `audit` | who asked the API server for what? |
| `deployments` | what do many ModelDeployments look like, and are they all where they should be? |
"""
