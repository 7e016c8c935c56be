from perdure.testing.suite.search import *
