"""Hands over to the plugin of the harness."""

pytest_plugins = ["suites.harness.pytest_plugin.plugin", "suites.harness.pytest_plugin.nightly"]
