"""Jobs with a hot expert, a slow device, both or neither, and what the report says of them."""
