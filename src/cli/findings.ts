import type { Finding } from './doctor.ts'

/** All is well. */
export function ok(detail: string): Finding {
  return { status: 'ok', detail }
}

/** Something needs a look, and the gate works all the same. */
export function warning(detail: string, remedy?: string): Finding {
  return { status: 'warning', detail, ...(remedy !== undefined && { remedy }) }
}

/** The gate does not work so. */
export function failed(detail: string, remedy: string): Finding {
  return { status: 'failed', detail, remedy }
}
