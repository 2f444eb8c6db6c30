"""Who uses the pages in these tests."""

#: Each with its role; the password is the name. The last one has rights on one DAG only.
USERS = {"admin": "admin", "operator": "op", "author": "user", "viewer": "viewer", "trips": "user"}
