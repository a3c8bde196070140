"""Hands over to the plugin of the harness."""

pytest_plugins = ["suites.harness.plugin", "suites.harness.nightly"]
