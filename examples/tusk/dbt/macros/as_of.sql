{# "Now" for every model: never the clock, so that the same events always give the same traits. #}
{% macro as_of() -%}
  {%- if var('as_of') -%}
    cast('{{ var("as_of") }}' as timestamp)
  {%- else -%}
    (select max(time) from {{ source('traitmesh', 'events') }})
  {%- endif -%}
{%- endmacro %}

{# The first day after "now", UTC: windows of whole days end there. #}
{% macro end_day() -%}
  {{ dbt.dateadd('day', 1, 'cast(' ~ as_of() ~ ' as date)') }}
{%- endmacro %}
