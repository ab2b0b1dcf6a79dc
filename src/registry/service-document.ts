import { hash } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromMs, timestampMs } from '@bufbuild/protobuf/wkt'
import {
  type DocumentInfo as DocumentInfoMessage,
  type DocumentInfoSchema,
  DocumentFormat as Format,
  type ServiceDocument,
} from '../../gen/marketplace/v1/service_document_pb.ts'
import { isObject } from '../is-object.ts'
import { invalid } from './price-message.ts'

/** What is known of a service's document without its content. */
export interface DocumentInfo {
  readonly format: DocumentFormat
  /** Of the content, in hexadecimal. */
  readonly sha256: string
  readonly sizeBytes: number
  /** Unix milliseconds. */
  readonly updatedAtMs: number
}

export type DocumentFormat = 'openapi_json' | 'openapi_yaml' | 'proto'

/**
 * What is known of a document that is to be set; undefined for one without content, which removes what is there. Throws
 * INVALID_ARGUMENT for content without a format, and for JSON that is no OpenAPI.
 */
export function documentInfoOf({ format, content }: ServiceDocument, nowMs: number): DocumentInfo | undefined {
  if (content === '') return undefined
  const name = formats.find((each) => formatValues[each] === format)
  if (name === undefined) throw invalid('document.format', 'must be stated', 'required')
  if (name === 'openapi_json' && !isOpenApi(content)) {
    throw invalid('document.content', 'must be JSON of an OpenAPI document, with the member "openapi"', 'openapi')
  }
  return { format: name, sha256: hash('sha256', content), sizeBytes: Buffer.byteLength(content), updatedAtMs: nowMs }
}

/** Of a service of the contract, as it was shown. */
export function shownDocumentInfo(message: DocumentInfoMessage): DocumentInfo {
  const { format, sha256, sizeBytes, updateTime } = message
  const name = formats.find((each) => formatValues[each] === format) ?? 'proto'
  return { format: name, sha256, sizeBytes, updatedAtMs: updateTime === undefined ? 0 : timestampMs(updateTime) }
}

/** What is known of a document, as callers see it. */
export function documentInfoMessage(info: DocumentInfo): MessageInitShape<typeof DocumentInfoSchema> {
  const { format, sha256, sizeBytes, updatedAtMs } = info
  return { format: formatValues[format], sha256, sizeBytes, updateTime: timestampFromMs(updatedAtMs) }
}

const formats = ['openapi_json', 'openapi_yaml', 'proto'] as const

const formatValues: Readonly<Record<DocumentFormat, Format>> = {
  openapi_json: Format.OPENAPI_JSON,
  openapi_yaml: Format.OPENAPI_YAML,
  proto: Format.PROTO,
}

function isOpenApi(content: string): boolean {
  try {
    const document: unknown = JSON.parse(content)
    return isObject(document) && typeof document.openapi === 'string'
  } catch {
    return false
  }
}
