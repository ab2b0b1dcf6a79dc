import { createInterface } from 'node:readline/promises'
import type { Terminal } from './administration.ts'

/** Asks whether to go on; false without a terminal to ask at, where --yes is the answer. */
export async function confirmed(warning: string, { stdin, stderr }: Terminal): Promise<boolean> {
  stderr.write(`${warning}\n`)
  if (!stdin.isTTY) {
    stderr.write('tollgate: there is nobody to ask here: say --yes to go on.\n')
    return false
  }
  const lines = createInterface({ input: stdin, output: process.stderr })
  try {
    return /^y(es)?$/i.test(await lines.question('Go on? [y/N] '))
  } finally {
    lines.close()
  }
}
