package containerd

// What reads text of the kernel and the host is tested by itself.
var (
	KilledIn     = killedIn
	ParseCounter = parseCounter
	ReadRecord   = readRecord
	Listeners    = listeners
)

// FindCgroups says where the controllers are.
func FindCgroups(root, mountinfo string) (unified string, v1 map[string]string, err error) {
	g, err := findCgroups(root, mountinfo)
	return g.unified, g.v1, err
}
