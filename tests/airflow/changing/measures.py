"""What a test changes: workers that have imported it keep what it was."""

VALUE = 1
