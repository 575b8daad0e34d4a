def phases(t): return {}
def headline(t): return {}
