module penstock/examples/chat

go 1.26.6
