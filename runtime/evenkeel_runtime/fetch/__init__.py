"""The address becomes verified bytes: every byte is hashed while it is read, before any parser sees it."""
