module managedsecrets.dev/formats

go 1.26
