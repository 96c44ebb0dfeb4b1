#include "smallvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void die(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	exit(1);
}

uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *map_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		die("mmap");
	return memory;
}

static void add_slot(struct smallvm *vm, uint32_t slot, uint64_t address, void *memory, size_t size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = address,
		.memory_size = size,
		.userspace_addr = (uintptr_t)memory,
	};
	if (ioctl(vm->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		die("KVM_SET_USER_MEMORY_REGION");
}

static void load_rom(struct smallvm *vm, const char *path)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	struct stat info;
	if (file < 0 || fstat(file, &info) < 0)
		die(path);
	size_t size = (size_t)info.st_size;
	if (!size || size % 4096 || size > 1u << 24) {
		errno = EINVAL;
		die(path);
	}
	void *memory = map_memory(size);
	if (read(file, memory, size) != (ssize_t)size)
		die(path);
	close(file);
	add_slot(vm, 2, (1ull << 32) - size, memory, size);
}

/* RAM below and above the VGA window, which stays MMIO as in a PC. */
static void add_ram(struct smallvm *vm, size_t size)
{
	enum { WINDOW = 0xa0000, HIGH = 0x100000 };
	char *memory = map_memory(size);
	add_slot(vm, 0, 0, memory, WINDOW);
	add_slot(vm, 1, HIGH, memory + HIGH, size - HIGH);
}

static void create_chips(struct smallvm *vm)
{
	struct kvm_pit_config pit = {0};

	if (ioctl(vm->vm, KVM_CREATE_IRQCHIP, 0) < 0)
		die("KVM_CREATE_IRQCHIP");
	if (ioctl(vm->vm, KVM_CREATE_PIT2, &pit) < 0)
		die("KVM_CREATE_PIT2");
}

static void create(struct smallvm *vm, const char *rom_path, size_t ram_size, bool chips)
{
	vm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm < 0)
		die("/dev/kvm");
	vm->vm = ioctl(vm->kvm, KVM_CREATE_VM, 0);
	if (vm->vm < 0)
		die("KVM_CREATE_VM");
	/* Intel processors need three pages for real mode; keep them clear of the ROM. */
	if (ioctl(vm->vm, KVM_SET_TSS_ADDR, 0xfeffd000ul) < 0)
		die("KVM_SET_TSS_ADDR");
	add_ram(vm, ram_size);
	load_rom(vm, rom_path);
	if (chips)
		create_chips(vm);

	vm->vcpu = ioctl(vm->vm, KVM_CREATE_VCPU, 0);
	if (vm->vcpu < 0)
		die("KVM_CREATE_VCPU");
	int run_size = ioctl(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (run_size < 0)
		die("KVM_GET_VCPU_MMAP_SIZE");
	vm->run = mmap(NULL, (size_t)run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
	if (vm->run == MAP_FAILED)
		die("mmap of the vCPU");
}

void smallvm_create(struct smallvm *vm, const char *rom_path, size_t ram_size)
{
	create(vm, rom_path, ram_size, false);
}

void smallvm_create_pc(struct smallvm *vm, const char *rom_path, size_t ram_size)
{
	create(vm, rom_path, ram_size, true);
}
