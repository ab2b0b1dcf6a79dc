/**
 * `tollgate doctor`: looks at everything that the settings of a gate name, and says of what is wrong what to do. It changes
 * nothing, and its checks run beside each other, each with a bound.
 */
import type { Config } from '../config.ts'
import { describeError } from '../storage/postgres.ts'
import { within } from '../within.ts'
import { checks } from './doctor-checks.ts'

/** What a check found. */
export interface Finding {
  readonly status: 'ok' | 'warning' | 'failed'
  readonly detail: string
  /** What to do; absent when all is well. */
  readonly remedy?: string
}

/** A look at one thing. Rejects with what went wrong, which is a finding, too. */
export interface Check {
  readonly name: string
  /** What to do when the look itself fails. */
  readonly remedy: string
  look(config: Config): Promise<readonly Finding[]>
}

export interface DoctorOptions {
  readonly json: boolean
  write(text: string): void
}

const timeoutMs = 15_000

/** Runs all checks and writes what they found; 0 when nothing failed, else 1. */
export async function runDoctor(config: Config, { json, write }: DoctorOptions): Promise<number> {
  const found = await Promise.all(
    checks.map(async (check) => ({ check: check.name, findings: await look(check, config) })),
  )
  if (json) write(`${JSON.stringify(found, null, 2)}\n`)
  else for (const { check, findings } of found) for (const finding of findings) write(lineOf(check, finding))
  return found.some(({ findings }) => findings.some(({ status }) => status === 'failed')) ? 1 : 0
}

async function look(check: Check, config: Config): Promise<readonly Finding[]> {
  try {
    return await within(timeoutMs, check.look(config))
  } catch (error) {
    return [{ status: 'failed', detail: describeError(error), remedy: check.remedy }]
  }
}

const signs: Readonly<Record<Finding['status'], string>> = { ok: 'ok     ', warning: 'warning', failed: 'FAILED ' }

function lineOf(check: string, { status, detail, remedy }: Finding): string {
  const remark = remedy === undefined ? '' : `\n         ${remedy}`
  return `${signs[status]}  ${check}: ${detail}${remark}\n`
}
