"""Deployment: a checked release on a device, made current by one rename, with a way back.

    <root>/<app>/
      incoming/<id>/    being uploaded
      releases/<id>/    manifest.json, the model, its golden vectors, the runner, examples
      current           -> releases/<id>
      previous          -> releases/<id>
      state.json        written last
      lock              who deploys now, and until when

`manifest` says what a release is, `bundle` makes one, `steps` holds every script that runs on a device, `flow` is their
order and what a failure between any two of them means, `fleet` does it on many devices.
"""
