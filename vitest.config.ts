import { defineConfig } from 'vitest/config'

const serverTests = ['src/**/*.server.test.ts', 'test/**/*.test.ts']

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['src/**/*.test.ts'],
          exclude: serverTests,
          setupFiles: ['test/support/leak-guard.ts'],
          // More than there may be cores: some files mostly wait for leases and deadlines.
          maxWorkers: 4,
          testTimeout: 20_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'server',
          include: serverTests,
          globalSetup: ['test/support/used-servers.ts'],
          setupFiles: ['test/support/leak-guard.ts'],
          // Each file starts servers of its own, and some kill them under load: side by side they only slow each other.
          maxWorkers: 1,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
})
