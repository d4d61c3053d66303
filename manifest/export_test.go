package manifest

// HashesSize is how many bytes the file of hashes of so many blocks has.
func HashesSize(blocks int64) int64 { return shapeOf(blocks).size() }
