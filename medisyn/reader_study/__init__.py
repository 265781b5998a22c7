"""Reader studies: what people see in real and synthetic images, asked blindly and analysed with readers and cases as random."""
