/** Whether a content type says JSON; in any charset, which JSON does not have: it is UTF-8. */
export function isJsonType(contentType: string): boolean {
  return /^application\/json *(;|$)/i.test(contentType)
}
