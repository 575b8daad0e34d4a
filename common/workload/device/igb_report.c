// SPDX-License-Identifier: GPL-2.0-only
/* What has to be the same on both sides of the kexec, read from where it is. */
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "igb.h"
#include "pci_config.h"
#include "vfio.h"

#define PORT "0000:00:02.0"
#define HEAD_LOOKS 5
#define VFIO_CONFIG 256

#define HEADER_TEXT (2 * PCI_STD_HEADER_SIZEOF + 1)
#define BRIDGES_MAX 8
#define FUNCTION_TEXT 192
/* An open device that is closed is asleep at once; the bound is for a host that is busy. */
#define ASLEEP_MS 3000
/* An interrupt comes at once; the bound is for a host that is busy. */
#define INTERRUPT_MS 3000

/* Bytes @from to @to of the configuration, as hexadecimal digits. */
static void config_text(const char *bdf, size_t from, size_t to, char *text)
{
	u8 config[PCI_CONFIG_MAX];

	pci_config_read(bdf, from, to, config);
	for (size_t i = 0; i < to - from; i++)
		sprintf(text + 2 * i, "%02x", config[i]);
}

static void report_config(const char *bdf, const char *key, size_t from, size_t to)
{
	char text[2 * PCI_CONFIG_MAX + 1];

	config_text(bdf, from, to, text);
	fact(key, "%s", text);
}

/* The content of an attribute in one line, which has to be a short one. */
static void attribute_text(const char *bdf, const char *name, char *text, size_t size)
{
	char path[128];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", bdf, name);
	fd = must(sys(open(path, O_RDONLY | O_CLOEXEC)));
	len = must(sys(read(fd, text, size - 1)));
	close(fd);
	text[len] = '\0';
	text[strcspn(text, "\n")] = '\0';
}

static u32 config_word(const char *bdf, u16 at)
{
	u32 word;

	pci_config_read(bdf, at, at + sizeof(word), (u8 *)&word);
	return word;
}

/* Where it is, 0 for nowhere. */
static u16 extended_capability(const char *bdf, u16 id)
{
	for (u32 at = PCI_CFG_SPACE_SIZE, header; at; at = PCI_EXT_CAP_NEXT(header)) {
		header = config_word(bdf, at);
		if (PCI_EXT_CAP_ID(header) == id)
			return at;
	}
	return 0;
}

/*
 * What somebody has set up in a function's PCI Express and AER capabilities, and how often it is
 * enabled.
 */
static size_t function_text(const char *bdf, char *text, size_t size)
{
	static const u8 controls[] = { PCI_EXP_DEVCTL, PCI_EXP_LNKCTL, PCI_EXP_SLTCTL,
				       PCI_EXP_RTCTL, PCI_EXP_DEVCTL2, PCI_EXP_LNKCTL2 };
	static const u8 masks[] = { PCI_ERR_UNCOR_MASK, PCI_ERR_UNCOR_SEVER, PCI_ERR_COR_MASK,
				    PCI_ERR_CAP };
	u8 config[PCI_CONFIG_MAX], at;
	char enabled[16];
	size_t used;
	u16 aer;

	attribute_text(bdf, "enable", enabled, sizeof(enabled));
	used = snprintf(text, size, "%s enabled %s", bdf, enabled);
	pci_config_read(bdf, 0, PCI_CONFIG_MAX, config);
	for (at = config[PCI_CAPABILITY_LIST]; at && config[at] != PCI_CAP_ID_EXP;)
		at = config[at + PCI_CAP_LIST_NEXT];
	for (size_t i = 0; at && i < sizeof(controls); i++)
		used += snprintf(text + used, size - used, " %02x:%02x%02x", controls[i],
				 config[at + controls[i] + 1], config[at + controls[i]]);
	aer = extended_capability(bdf, PCI_EXT_CAP_ID_ERR);
	for (size_t i = 0; aer && i < sizeof(masks); i++)
		used += snprintf(text + used, size - used, " %03x:%08x", aer + masks[i],
				 config_word(bdf, aer + masks[i]));
	must_be(used < size, "too much to say of %s", bdf);
	return used;
}

/* Each bridge from the root port on, then the device, as sysfs nests them. */
static void report_path(const char *bdf)
{
	char link[256], text[256], configs[BRIDGES_MAX * HEADER_TEXT] = "", *step, *next;
	char functions[(BRIDGES_MAX + 1) * FUNCTION_TEXT];
	size_t said = 0;
	ssize_t len;

	snprintf(link, sizeof(link), "/sys/bus/pci/devices/%s", bdf);
	len = must(sys(readlink(link, text, sizeof(text) - 1)));
	text[len] = '\0';
	step = strstr(text, "/pci0000:00/");
	must_be(step, "%s is a link to %s", bdf, text);
	step += strlen("/pci0000:00/");
	fact("device.path", "%s", step);
	for (; (next = strchr(step, '/')); step = next + 1) {
		size_t used = strlen(configs);

		*next = '\0';
		must_be(used + HEADER_TEXT < sizeof(configs), "too many bridges above %s", bdf);
		if (used)
			configs[used++] = '/';
		config_text(step, 0, PCI_STD_HEADER_SIZEOF, configs + used);
		said += function_text(step, functions + said, FUNCTION_TEXT);
		said += sprintf(functions + said, "; ");
	}
	function_text(step, functions + said, FUNCTION_TEXT);
	fact("bridges.config", "%s", configs);
	fact("device.functions", "%s", functions);
}

/*
 * What a driver sets up and hardware leaves alone (Intel 82576 datasheet, 8.1.3; those that an
 * interrupt changes by itself, EIMS and the causes, are not among them).
 */
static const struct settings {
	const char *name;
	u32 reg, count;
} settings[] = {
	{ "ctrl", 0x0000, 1 },	    { "ctrl_ext", 0x0018, 1 },	{ "flow_control", 0x0028, 3 },
	{ "vet", 0x0038, 1 },	    { "ims", 0x00d0, 1 },	{ "iam", 0x00e0, 1 },
	{ "fcttv", 0x0170, 1 },	    { "tctl", 0x0400, 1 },	{ "tipg", 0x0410, 1 },
	{ "gpie", 0x1514, 1 },	    { "eiac", 0x152c, 1 },	{ "eiam", 0x1530, 1 },
	{ "eitr", 0x1680, 25 },	    { "ivar", 0x1700, 8 },	{ "ivar_misc", 0x1740, 1 },
	{ "fcrt", 0x2160, 3 },	    { "dtxctl", 0x3590, 1 },	{ "rxcsum", 0x5000, 3 },
	{ "multicast", 0x5200, 128 }, { "addresses", 0x5400, 30 }, { "vlans", 0x5600, 128 },
	{ "mrqc", 0x5818, 2 },	    { "rss", 0x5c00, 42 },	{ "tx_ring", 0xe000, 3 },
	{ "txdctl", 0xe028, 1 },
};

/* A register as it is, of several a digest. */
static void report_settings(const struct igb *igb)
{
	char text[ARRAY_SIZE(settings) * 32] = "";
	size_t len = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(settings); i++) {
		u32 value = igb_read(igb, settings[i].reg);

		for (u32 n = 1; n < settings[i].count; n++)
			value = (value << 5 | value >> 27) * 0x9e3779b1u +
				igb_read(igb, settings[i].reg + 4 * n);
		len += snprintf(text + len, sizeof(text) - len, "%s%s=%08x", i ? " " : "",
				settings[i].name, value);
	}
	fact("device.settings", "%s", text);
}

/*
 * The head, and when it was read: on a busy host the line may come much later,
 * and this CPU may be kept waiting between the two as well.
 */
static void report_head(const struct igb *igb)
{
	u64 before, after, best = ~0ULL, when = 0;
	u32 head = 0;

	for (int i = 0; i < HEAD_LOOKS; i++) {
		u32 seen;

		before = read_counter();
		seen = igb_rx_head(igb);
		after = read_counter();
		if (after - before < best) {
			best = after - before;
			when = before;
			head = seen;
		}
	}
	fact("device.head", "%u", head);
	fact_counter("head", when);
}

/* Which drivers the services of the first port have, as `aer pcie_pme`. */
static void report_services(void)
{
	char text[256] = "", driver[256];
	size_t used = 0;
	glob_t found;

	if (glob("/sys/bus/pci_express/devices/" PORT ":*/driver", 0, NULL, &found)) {
		fact("port.services", "none");
		return;
	}
	for (size_t i = 0; i < found.gl_pathc; i++) {
		ssize_t len = must(sys(readlink(found.gl_pathv[i], driver, sizeof(driver) - 1)));

		driver[len] = '\0';
		used += snprintf(text + used, sizeof(text) - used, "%s%s", i ? " " : "",
				 strrchr(driver, '/') + 1);
		must_be(used < sizeof(text), "too many services");
	}
	globfree(&found);
	fact("port.services", "%s", text);
}

/* Facts device.*, port.config of the first port, which is above the device, bridges.config. */
void igb_report(const struct igb *igb, const char *bdf)
{
	struct igb_ring_state state;

	igb_ring_state(igb, &state);
	fact("device.bdf", "%s", bdf);
	fact("device.registers",
	     "rdbal=%08x rdbah=%08x rdlen=%08x rctl=%08x rxdctl=%08x srrctl=%08x scratch=%08x",
	     state.rdbal, state.rdbah, state.rdlen, state.rctl, state.rxdctl, state.srrctl,
	     state.scratch);
	report_settings(igb);
	report_head(igb);
	fact("device.tail", "%u", igb_rx_tail(igb));
	report_config(bdf, "device.config", 0, PCI_STD_HEADER_SIZEOF);
	report_config(bdf, "device.capabilities", PCI_STD_HEADER_SIZEOF, PCI_CONFIG_MAX);
	report_config(PORT, "port.config", 0, PCI_STD_HEADER_SIZEOF);
	report_services();
	report_path(bdf);
}

/* What vfio says of interrupts and regions: whoever uses the device goes by it. */
void report_vfio_info(int device)
{
	char text[512] = "";
	size_t used = 0;

	for (u32 i = 0; i < VFIO_PCI_NUM_IRQS; i++)
		used += snprintf(text + used, sizeof(text) - used, "irq%u=%x ", i,
				 vfio_irq_info(device, i));
	for (u32 i = 0; i < VFIO_PCI_NUM_REGIONS; i++)
		used += snprintf(text + used, sizeof(text) - used, "region%u=%llx ", i,
				 vfio_region_info(device, i));
	fact("device.vfio_info", "%s", text);
}

/* The configuration as vfio shows it to the device's user, who does not see all that there is. */
void report_vfio_config(int device)
{
	char text[2 * VFIO_CONFIG + 1];
	u8 config[VFIO_CONFIG];

	for (u32 at = 0; at < VFIO_CONFIG; at += sizeof(u32))
		must(vfio_config_read(device, at, config + at, sizeof(u32)));
	for (u32 at = 0; at < VFIO_CONFIG; at++)
		sprintf(text + 2 * at, "%02x", config[at]);
	fact("device.vfio_config", "%s", text);
	report_vfio_info(device);
}

/* How many interrupts arrive for one that is asked for; -errno where there can be none. */
static int count_interrupts(const struct igb *igb, int device, u32 index)
{
	struct pollfd event = { .fd = must(sys(eventfd(0, EFD_CLOEXEC))), .events = POLLIN };
	u64 count = 0;
	int ret;

	ret = vfio_set_irq_eventfd(device, index, event.fd);
	if (!ret) {
		if (!param_control("interrupt-left-out"))
			igb_interrupt(igb);
		if (must(sys(poll(&event, 1, INTERRUPT_MS))))
			must_be(read(event.fd, &count, sizeof(count)) == sizeof(count), "no count");
		igb_interrupt_end(igb);
		must(vfio_clear_irqs(device, index));
		ret = count;
	}
	close(event.fd);
	return ret;
}

/* The device's, by each way that its user may choose. */
void igb_report_interrupts(const struct igb *igb, int device)
{
	int intx = count_interrupts(igb, device, VFIO_PCI_INTX_IRQ_INDEX);

	fact("device.interrupts", "intx=%d msix=%d", intx,
	     count_interrupts(igb, device, VFIO_PCI_MSIX_IRQ_INDEX));
}

/*
 * Of a device that nobody has open: vfio-pci has it disabled, and asleep, and
 * no other driver gets it.
 */
void report_let_go(const char *bdf)
{
	struct deadline deadline = deadline_in_ms(ASLEEP_MS);
	char enabled[16], status[32], driver[32];

	do {
		poll_pause();
		attribute_text(bdf, "enable", enabled, sizeof(enabled));
		attribute_text(bdf, "power/runtime_status", status, sizeof(status));
	} while (strcmp(status, "suspended") && !deadline_passed(deadline));
	attribute_text(bdf, "driver_override", driver, sizeof(driver));
	fact("device.let_go", "enabled %s, %s, for %s", enabled, status, driver);
}
