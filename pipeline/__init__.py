"""The conductor: recipe, plan, engine, ledger, report and the command line."""
