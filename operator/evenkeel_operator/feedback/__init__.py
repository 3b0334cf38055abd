"""The label service: truths that arrive late, each counted once.

    command    flags, logging, the process
    service    HTTP: POST /v1/feedback, GET /v1/quality, what replicas tell
    access     who may do what: a replica's signature, or Kubernetes' own answer
    judge      is this item a label of a prediction of ours? (pure)
    commits    many posts, one transaction; nobody is answered before it is on the disk
    reads      whose turn is it to ask the database?
    counts     what do labels and pairs change in the counts? (pure)
    store      how all of it is written, by which SQL; sqlite and postgres are its two databases
    schema     the tables, and how an earlier release's become these; retention deletes what is too old
    series     what is known of each revision: the counts as they are kept, for quality
    cohorts    what an answer says of each cohort, made once for each of its versions
    ratings    how good each model is, for Prometheus, of what totals adds up

The way of one label: access says for which ModelDeployments the post may speak, judge verifies each item's receipt,
commits puts what is left into one transaction with everybody else's, and only then each item is answered.
"""
