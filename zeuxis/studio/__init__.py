"""The studio: the runs in a browser, to train, watch, explore and judge them. `pip install "zeuxis[studio]"`.

One state, one direction: pages show what lies in the folder of runs and start commands; nothing of a training lives in
a page. Whatever takes long is a process of its own (`jobs`), and models that answer a pointer share one thread
(`state`). Every request passes the `guard`, every name of a run the `shelf`.
"""
