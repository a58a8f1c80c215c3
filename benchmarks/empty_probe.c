/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor: a program of two instructions on entry and return of the TLS calls.
 *
 *   gcc -O2 -o empty_probe empty_probe.c -lbpf -lelf
 *   empty_probe --library /usr/lib/x86_64-linux-gnu/libssl.so.3 [--pid N] [--functions a,b]
 *   empty_probe --library FILE --offsets 1234,5678
 * [--entry-only]
 *
 * What the traced program loses here is the price of the trap on this kernel; what it loses more
 * under a real tracer is the tracer's. One "ready:" line on standard error when the hooks are in
 * place; SIGINT or SIGTERM takes them away.
 *
 * The link is made by the system call itself: libbpf 1.1 has no wrapper for uprobe_multi, which
 * came with Linux 6.6 (commit 89ae89f53d20, "bpf: Add multi uprobe link").
 */
#define _GNU_SOURCE
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <getopt.h>
#include <linux/bpf.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ATTACH_UPROBE_MULTI 48 /* BPF_TRACE_UPROBE_MULTI in linux/bpf.h of 6.6 */
#define FLAG_RETURN 1	       /* BPF_F_UPROBE_MULTI_RETURN */
#define HOOKS_MAXIMUM 64

/* The members of union bpf_attr for BPF_LINK_CREATE of a uprobe_multi link, from linux/bpf.h 6.6.
 */
struct uprobe_multi_attr {
	uint32_t prog_fd;
	uint32_t target_fd;
	uint32_t attach_type;
	uint32_t flags;
	uint64_t path;
	uint64_t offsets;
	uint64_t ref_ctr_offsets;
	uint64_t cookies;
	uint32_t count;
	uint32_t multi_flags;
	uint32_t pid;
	uint32_t _padding;
};

__attribute__((noreturn)) static void fail(const char *what)
{
	fprintf(stderr, "empty_probe: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* Hooks are placed at offsets in the file, symbols are addresses. */
static uint64_t file_offset(Elf *elf, uint64_t address)
{
	GElf_Phdr segment;
	size_t count, i;

	elf_getphdrnum(elf, &count);
	for (i = 0; i < count; i++)
		if (gelf_getphdr(elf, i, &segment) && segment.p_type == PT_LOAD &&
		    address >= segment.p_vaddr && address < segment.p_vaddr + segment.p_filesz)
			return address - segment.p_vaddr + segment.p_offset;
	return 0;
}

static bool listed(const char *name, const char *list)
{
	size_t length = strlen(name);
	const char *at;

	for (at = list; (at = strstr(at, name)); at += length)
		if ((at == list || at[-1] == ',') && (!at[length] || at[length] == ','))
			return true;
	return false;
}

static unsigned symbols_in(Elf *elf, const char *list, uint64_t *offsets, unsigned wanted_type)
{
	Elf_Scn *section = NULL;
	GElf_Shdr header;
	GElf_Sym symbol;
	Elf_Data *content;
	const char *name;
	unsigned found = 0;
	size_t i;

	while ((section = elf_nextscn(elf, section))) {
		if (!gelf_getshdr(section, &header) || header.sh_type != wanted_type)
			continue;
		content = elf_getdata(section, NULL);
		for (i = 0; content && i < header.sh_size / header.sh_entsize; i++) {
			gelf_getsym(content, i, &symbol);
			name = elf_strptr(elf, header.sh_link, symbol.st_name);
			if (name && symbol.st_value && GELF_ST_TYPE(symbol.st_info) == STT_FUNC &&
			    found < HOOKS_MAXIMUM && listed(name, list))
				offsets[found++] = file_offset(elf, symbol.st_value);
		}
	}
	return found;
}

static unsigned find_offsets(const char *path, const char *list, uint64_t *offsets)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned found;
	Elf *elf;

	if (fd < 0)
		fail(path);
	elf_version(EV_CURRENT);
	elf = elf_begin(fd, ELF_C_READ, NULL);
	if (!elf)
		fail("not an ELF file");
	found = symbols_in(elf, list, offsets, SHT_DYNSYM);
	if (!found)
		found = symbols_in(elf, list, offsets, SHT_SYMTAB);
	elf_end(elf);
	close(fd);
	return found;
}

/* Offsets in the file, as decimal numbers with commas between. */
static unsigned numbers_of(const char *list, uint64_t *offsets)
{
	unsigned found = 0;
	char *end;

	while (*list && found < HOOKS_MAXIMUM) {
		offsets[found++] = strtoull(list, &end, 10);
		if (end == list || (*end && *end != ','))
			return 0;
		list = *end ? end + 1 : end;
	}
	return found;
}

static int empty_program(void)
{
	/* r0 = 0; exit */
	struct bpf_insn text[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = ATTACH_UPROBE_MULTI);
	int fd = bpf_prog_load(BPF_PROG_TYPE_KPROBE, "empty", "GPL", text, 2, &options);

	if (fd < 0)
		fail("loading the program");
	return fd;
}

static int attach(int program, const char *path, uint64_t *offsets, unsigned count, uint32_t pid,
		  uint32_t flags)
{
	struct uprobe_multi_attr attr = {
		.prog_fd = program,
		.attach_type = ATTACH_UPROBE_MULTI,
		.path = (uintptr_t)path,
		.offsets = (uintptr_t)offsets,
		.count = count,
		.multi_flags = flags,
		.pid = pid,
	};
	int fd = syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));

	if (fd < 0)
		fail("attaching");
	return fd;
}

int main(int count, char **words)
{
	static const struct option table[] = {
		{"library", required_argument, NULL, 'l'},
		{"pid", required_argument, NULL, 'p'},
		{"functions", required_argument, NULL, 'f'},
		{"offsets", required_argument, NULL, 'o'},
		{"entry-only", no_argument, NULL, 'e'},
		{NULL, 0, NULL, 0},
	};
	const char *functions = "SSL_read,SSL_read_ex,SSL_write,SSL_write_ex";
	const char *library = "/usr/lib/x86_64-linux-gnu/libssl.so.3";
	uint64_t offsets[HOOKS_MAXIMUM];
	bool entry_only = false;
	const char *places = NULL;
	unsigned found;
	uint32_t pid = 0;
	sigset_t ending;
	int code, program, signal_number;

	while ((code = getopt_long(count, words, "", table, NULL)) != -1) {
		if (code == 'l')
			library = optarg;
		else if (code == 'p')
			pid = strtoul(optarg, NULL, 10);
		else if (code == 'f')
			functions = optarg;
		else if (code == 'o')
			places = optarg;
		else if (code == 'e')
			entry_only = true;
		else
			return 2;
	}
	sigemptyset(&ending);
	sigaddset(&ending, SIGINT);
	sigaddset(&ending, SIGTERM);
	sigprocmask(SIG_BLOCK, &ending, NULL);
	found = places ? numbers_of(places, offsets) : find_offsets(library, functions, offsets);
	if (!found)
		fail(places ? "these are no offsets" : "no such function in the library");
	program = empty_program();
	attach(program, library, offsets, found, pid, 0);
	if (!entry_only)
		attach(program, library, offsets, found, pid, FLAG_RETURN);
	fprintf(stderr, "ready: functions=%u hooks=%u\n", found, found * (entry_only ? 1 : 2));
	sigwait(&ending, &signal_number);
	fprintf(stderr, "summary: events=0 bytes=0 flows=0 lost=0 truncated=0\n");
	return 0;
}
