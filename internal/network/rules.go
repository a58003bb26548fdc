package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ruleSet is what the rules of an instance depend on.
type ruleSet struct {
	table     string
	bridges   string       // how their names begin
	addresses netip.Prefix // of all replicas
	host      netip.Addr   // that services listen on; invalid without any
	services  []Service
	exposed   uint16 // where services that come and go listen; 0: nowhere
}

// installRules replaces the instance's table in one transaction. The rules match the bridges by the prefix of their
// names, so their number does not grow with environments or replicas (a rule for each pair of environments no longer
// fits one netlink message at 100 of them). Exposed ports stay as they are: an app of one must not be refused because
// control starts.
func installRules(r ruleSet) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	kept, err := exposedPorts(c, r.table)
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: r.table}
	c.AddTable(t) // so that the next line finds one
	c.DelTable(t)
	c.AddTable(t)

	ports := &nftables.Set{
		Table: t, Name: "open", Concatenation: true,
		// Unique in this transaction. Without one the library counts in a variable that nothing guards.
		ID:      1,
		KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
	}
	elements := make([]nftables.SetElement, len(r.services))
	for i, s := range r.services {
		elements[i] = nftables.SetElement{Key: portKey(s.Protocol, s.Local)}
	}
	if r.exposed != 0 {
		elements = append(elements, nftables.SetElement{Key: portKey("tcp", r.exposed)})
	}
	if err := c.AddSet(ports, elements); err != nil {
		return fmt.Errorf("nftables set: %w", err)
	}
	exposed := exposedSet(t)
	exposed.ID = 2
	if err := c.AddSet(exposed, kept); err != nil {
		return fmt.Errorf("nftables set: %w", err)
	}
	chain := func(name string, typ nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		accept := nftables.ChainPolicyAccept // nothing else on the machine is our business
		return c.AddChain(&nftables.Chain{Table: t, Name: name, Type: typ, Hooknum: hook, Priority: priority, Policy: &accept})
	}
	rule := func(ch *nftables.Chain, parts ...[]expr.Any) {
		var all []expr.Any
		for _, p := range parts {
			all = append(all, p...)
		}
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: all})
	}
	fromBridge := name(expr.MetaKeyIIFNAME, expr.CmpOpEq, r.bridges)
	toBridge := name(expr.MetaKeyOIFNAME, expr.CmpOpEq, r.bridges)

	// What is sent to a service of the gateway goes to where the service listens; nothing else is led there.
	pre := chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	for _, s := range r.services {
		rule(pre, fromBridge, ipv4(), localOnDevice(), port(s.Protocol, s.Port), leadTo(r.host, s.Local))
	}
	if r.exposed != 0 {
		rule(pre, fromBridge, ipv4(), localOnDevice(), protocol("tcp"), toAnyOf(exposed), leadTo(r.host, r.exposed))
	}

	in := chain("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	rule(in, established(), accept())
	rule(in, fromBridge, ipv4(), source(expr.CmpOpNeq, r.addresses), drop())
	if r.host.IsValid() {
		rule(in, fromBridge, ipv4(), destination(r.host), led(), inSet(ports), accept())
	}
	rule(in, fromBridge, reject())
	if r.host.IsValid() {
		// A neighbour on the machine's network could send to it by its link-layer address.
		rule(in, name(expr.MetaKeyIIFNAME, expr.CmpOpNeq, "lo\x00"), ipv4(), destination(r.host), drop())
	}

	forward := chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	rule(forward, established(), accept())
	rule(forward, fromBridge, spoofed(), drop())
	rule(forward, toBridge, reject()) // from another environment or from outside

	out := chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	rule(out, name(expr.MetaKeyOIFNAME, expr.CmpOpNeq, r.bridges), ipv4(), source(expr.CmpOpEq, r.addresses), []expr.Any{&expr.Masq{}})

	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables table %s: %w", r.table, err)
	}
	return nil
}

// exposedSet has the gateways' ports that are open for now.
func exposedSet(t *nftables.Table) *nftables.Set {
	return &nftables.Set{
		Table: t, Name: "exposed", Concatenation: true,
		KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService),
	}
}

// exposedPorts are the elements of a table's set; none where there is no such table, or none with that set.
func exposedPorts(c *nftables.Conn, table string) ([]nftables.SetElement, error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == table })
	if i < 0 {
		return nil, nil
	}
	sets, err := c.GetSets(tables[i])
	if err != nil {
		return nil, fmt.Errorf("list sets of nftables table %s: %w", table, err)
	}
	wanted := exposedSet(tables[i])
	if !slices.ContainsFunc(sets, func(s *nftables.Set) bool { return s.Name == wanted.Name }) {
		return nil, nil // made by an older version
	}
	elements, err := c.GetSetElements(wanted)
	if err != nil {
		return nil, fmt.Errorf("list exposed ports of nftables table %s: %w", table, err)
	}
	return elements, nil
}

// setExposed changes the elements of a table's set, in one transaction.
func setExposed(table string, ports []netip.AddrPort) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	set := exposedSet(&nftables.Table{Family: nftables.TableFamilyINet, Name: table})
	elements := make([]nftables.SetElement, len(ports))
	for i, p := range ports {
		elements[i] = nftables.SetElement{Key: addressPortKey(p)}
	}
	c.FlushSet(set)
	if len(elements) > 0 {
		if err := c.SetAddElements(set, elements); err != nil {
			return fmt.Errorf("nftables set: %w", err)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("exposed ports of nftables table %s: %w", table, err)
	}
	return nil
}

func removeRules(table string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: table}
	c.AddTable(t)
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove nftables table %s: %w", table, err)
	}
	return nil
}

// droppingChains names the chains of others that drop what nobody accepts: there, an accept of ours does not help.
func droppingChains(own string) ([]string, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var names []string
	for _, ch := range chains {
		if ch.Table.Name == own || ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop || ch.Hooknum == nil {
			continue
		}
		if *ch.Hooknum == *nftables.ChainHookForward || *ch.Hooknum == *nftables.ChainHookInput {
			names = append(names, ch.Table.Name+"/"+ch.Name)
		}
	}
	return names, nil
}

func portKey(protocol string, port uint16) []byte {
	key := make([]byte, 8) // each part of a concatenation is padded to four bytes
	key[0] = protocolNumber(protocol)
	binary.BigEndian.PutUint16(key[4:], port)
	return key
}

func addressPortKey(p netip.AddrPort) []byte {
	key := make([]byte, 8)
	copy(key, p.Addr().AsSlice())
	binary.BigEndian.PutUint16(key[4:], p.Port())
	return key
}

func protocolNumber(name string) byte {
	if name == "udp" {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// protocol must stand before every match on ports.
func protocol(name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocolNumber(name)}},
	}
}

// port matches what is for a port.
func port(of string, number uint16) []expr.Any {
	return append(protocol(of),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(number)},
	)
}

// toAnyOf matches what is for an address and port of a set.
func toAnyOf(s *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Payload{DestRegister: 9, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, // as in inSet
		&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID},
	}
}

// leadTo changes where a connection goes, in a NAT chain.
func leadTo(a netip.Addr, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: a.AsSlice()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2},
	}
}

// led matches connections whose destination was changed: nobody reaches a service by its own address.
func led() []expr.Any {
	const changed = 1 << 5 // IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(changed), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func destination(a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()},
	}
}

// name matches a device whose name starts with prefix: a comparison of fewer bytes than a name has.
func name(key expr.MetaKey, op expr.CmpOp, prefix string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: []byte(prefix)}}
}

// ipv4 must stand before every match on an IPv4 header in an inet table.
func ipv4() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}},
	}
}

func source(op expr.CmpOp, p netip.Prefix) []expr.Any {
	mask := ipNet(p).Mask
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func established() []expr.Any {
	bits := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: bits, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// localOnDevice matches what is for an address that the device it came by has: the gateway, and no other address of
// the host.
func localOnDevice() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, FlagIIF: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// spoofed matches a source that the device it came by does not lead to.
func spoofed() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, ResultOIF: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
	}
}

func inSet(s *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		// Registers of four bytes start at 8: the second half of a concatenation in register 1 is register 9.
		&expr.Payload{DestRegister: 9, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID},
	}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() []expr.Any   { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

// reject answers at once, so that a caller inside sees a refusal and not a time-out.
func reject() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}
