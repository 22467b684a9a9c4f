"""The live page of a campaign: frames, each with everything that is shown, and the server that sends them."""
