"""Commands that describe, divide and check scans."""
