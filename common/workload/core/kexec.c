// SPDX-License-Identifier: GPL-2.0-only
/*
 * Load and start the incoming kernel. kexec_file_load() it has to be: an
 * image loaded with kexec_load() carries no KHO tree, and everything that was
 * preserved would be lost without a word.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/kexec.h>
#include <linux/reboot.h>

#include "machine.h"
#include "workload.h"

#define INCOMING_KERNEL "/incoming/kernel"
#define INCOMING_INITRD "/incoming/initrd"
/* COMMAND_LINE_SIZE, of x86 and arm64 */
#define CMDLINE_SIZE 2048

/* What a kernel that came by kexec has behind the words of the first one. */
#define INCOMING_WORDS " stage.side=incoming"
#define UNCOUNTED_DONE " stage.uncounted=done"
#define STALE_TEXT_SIZE 64

/* This kernel's command line, of CMDLINE_SIZE at most; its length or -errno. */
static ssize_t own_cmdline(char *line)
{
	ssize_t len;
	int fd;

	fd = sys(open("/proc/cmdline", O_RDONLY | O_CLOEXEC));
	if (fd < 0)
		return fd;
	len = sys(read(fd, line, CMDLINE_SIZE - 1));
	close(fd);
	if (len < 0)
		return len;
	line[len] = '\0';
	line[strcspn(line, "\n")] = '\0';
	return strlen(line);
}

/*
 * The first kernel's command line, what keeps later ones off its text, the
 * words that say how often there was a kexec, and those of stage.incoming=.
 */
static int incoming_cmdline(char *line)
{
	char words[CMDLINE_SIZE], stale[STALE_TEXT_SIZE], *ours;
	ssize_t len;

	len = own_cmdline(line);
	if (len < 0)
		return len;
	ours = strstr(line, INCOMING_WORDS);
	if (ours)
		*ours = '\0';
	len = strlen(line);

	if (!param_get("incoming", words, sizeof(words)))
		words[0] = '\0';
	for (char *comma = words; *comma; comma++)
		if (*comma == ',')
			*comma = ' ';

	/* Before INCOMING_WORDS: it stays there when the kernel after this one cuts them off. */
	stale_text_words(stale, sizeof(stale));
	len += snprintf(line + len, CMDLINE_SIZE - len,
			"%s" INCOMING_WORDS " stage.updates=%llu%s%s", stale,
			param_updates_done() + 1, words[0] ? " " : "", words);
	return len < CMDLINE_SIZE ? 0 : -E2BIG;
}

static int load_as(const char *image, const char *line)
{
	int kernel, initrd, ret;

	kernel = sys(open(image, O_RDONLY | O_CLOEXEC));
	if (kernel < 0)
		return kernel;
	initrd = sys(open(INCOMING_INITRD, O_RDONLY | O_CLOEXEC));
	if (initrd < 0) {
		ret = initrd;
		goto out_kernel;
	}

	ret = sys(syscall(SYS_kexec_file_load, kernel, initrd, strlen(line) + 1, line, 0ul));
	close(initrd);
out_kernel:
	close(kernel);
	return ret;
}

static int load(const char *line)
{
	return load_as(INCOMING_KERNEL, line);
}

int kexec_load_incoming(void)
{
	char line[CMDLINE_SIZE];
	int ret;

	ret = incoming_cmdline(line);
	return ret < 0 ? ret : load(line);
}

/* The next kernel shall think that it is the first one. */
int kexec_load_uncounted(void)
{
	char line[CMDLINE_SIZE + STALE_TEXT_SIZE + sizeof(UNCOUNTED_DONE)];
	ssize_t len;

	len = own_cmdline(line);
	if (len < 0)
		return len;
	stale_text_words(line + len, STALE_TEXT_SIZE);
	strcat(line, UNCOUNTED_DONE);
	return load(line);
}

/* To be refused, once all of it has been read: an initrd is no kernel. */
int kexec_load_no_kernel(void)
{
	return load_as(INCOMING_INITRD, "");
}

/* Gives back what kexec_load_incoming() took. */
int kexec_unload(void)
{
	return sys(syscall(SYS_kexec_file_load, -1, -1, 0ul, NULL, KEXEC_FILE_UNLOAD));
}

/*
 * An image that is loaded as it was before KHO. It is no kernel: one page, to
 * be refused. Whoever starts it after all sees the machine end.
 */
int kexec_load_without_kho(void)
{
	static const char program[4096] = MACHINE_ENDS;
	struct kexec_segment segment = {
		.buf = program,
		.bufsz = sizeof(program),
		.mem = (void *)ORDINARY_PAGE,
		.memsz = sizeof(program),
	};

	return sys(syscall(SYS_kexec_load, ORDINARY_PAGE, 1ul, &segment, KEXEC_ARCH_DEFAULT));
}

int kexec_unload_without_kho(void)
{
	return sys(syscall(SYS_kexec_load, 0ul, 0ul, NULL, KEXEC_ARCH_DEFAULT));
}

/* Returns only when the kernel refused; the return value says why. */
int kexec_start(void)
{
	return sys(syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2,
			   LINUX_REBOOT_CMD_KEXEC, NULL));
}

/* As kexec_start(), as the last that this kernel's side has to say. */
int kexec_reboot(void)
{
	/* The next kernel starts on the first CPU, whichever reboot() was called on. */
	run_on_cpu(sysconf(_SC_NPROCESSORS_ONLN) - 1);
	print_last_facts();
	dialogue_line("# kexec");
	dialogue_drain();
	return kexec_start();
}
