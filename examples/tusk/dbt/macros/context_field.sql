{# A field of the first object of a Snowplow context; null if it is absent or of another type. #}
{% macro context_field(context, field, type) -%}
  try_cast(json_extract_string(contexts, '$.{{ context }}[0].{{ field }}') as {{ type }})
{%- endmacro %}
