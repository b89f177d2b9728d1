"""The gateway: answers HTTP and gRPC from a model server that it reaches over gRPC.

It never imports tensorflow. `app.create_app` is the Flask application that any WSGI server can run;
in production `front` answers about models in an event loop, from the same routes.
"""
