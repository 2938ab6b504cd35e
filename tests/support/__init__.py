"""What tests share: fakes, stubs, synthetic bundles and the places of files."""
