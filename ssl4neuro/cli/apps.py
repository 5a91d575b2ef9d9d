"""The applications that commands register with: `ssl4neuro COMMAND`, and the groups `ssl4neuro GROUP COMMAND`."""

from tyro.extras import SubcommandApp

app, prepare_app, simulate_app, recipes_app = SubcommandApp(), SubcommandApp(), SubcommandApp(), SubcommandApp()
GROUPS = {"prepare": prepare_app, "simulate": simulate_app, "recipes": recipes_app}
