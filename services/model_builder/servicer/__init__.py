"""The model builder's gRPC methods: a request becomes domain values, the store answers, rows become messages."""
