"""The gateway: a Flask application that answers HTTP from a model server it reaches over gRPC.

It never imports tensorflow. `app.create_app` is where everything is wired.
"""
