"""What strangers do to a service: attacks in rotation beside honest callers, and deaths at random moments."""
